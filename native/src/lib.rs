//! The native core of Spanwise: the OTLP wire format in, Arrow record batches out. It knows the wire, not the meaning:
//! which attribute means what is a plan handed over by `processors.normalise`. And the way back: ClickHouse's blocks to
//! its clients.

pub mod blocks;
mod columns;
pub mod content;
pub mod decode;
pub mod fingerprint;
pub mod inspect;
pub mod json;
pub mod messages;
pub mod normalise;
pub mod otlp;
pub mod plan;
mod python;
mod rows;
pub mod split;
#[cfg(test)]
mod testing;
mod text;
pub mod usage;
pub mod values;
pub mod view;
pub mod wire;
