import boto3
from botocore.config import Config
from opentelemetry.instrumentation.bedrock import BedrockInstrumentor
from play import SYSTEM, play, provider


def ask(url, model, history, tools, max_tokens):
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=Config(retries={"total_max_attempts": 1}),
    )
    messages = [{"role": role, "content": [{"text": text}]} for role, text in history]
    options = {"inferenceConfig": {"maxTokens": max_tokens}} if max_tokens else {}
    answer = client.converse(modelId=model, messages=messages, system=[{"text": SYSTEM}], **options)
    return answer["output"]["message"]["content"][0]["text"]


made = provider()
BedrockInstrumentor().instrument(tracer_provider=made)
play("bedrock", ask, made)
