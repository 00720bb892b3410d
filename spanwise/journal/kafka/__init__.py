"""The journal of a fleet, in Kafka. Only who builds one loads the client: see `config`."""
