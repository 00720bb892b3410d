"""Failure signatures: what is looked for in the steps of a trace. A module a signature; this is their registry."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from processors.detect.cascade import CascadeConfig
from processors.detect.context_limit import ContextLimitConfig
from processors.detect.delegation_loop import DelegationLoopConfig
from processors.detect.empty_result import EmptyResultConfig
from processors.detect.goal_drift import GoalDriftConfig
from processors.detect.invalid_tool_call import InvalidToolCallConfig
from processors.detect.llm_repetition import LlmRepetitionConfig
from processors.detect.output_truncated import OutputTruncatedConfig
from processors.detect.retry_loop import RetryLoopConfig
from processors.detect.run_limit import RunLimitConfig
from processors.detect.signature import Signature
from processors.detect.tool_cycle import ToolCycleConfig
from processors.detect.tool_error import ToolErrorConfig


class SignaturesConfig(BaseModel):
    """Thresholds of each signature."""

    model_config = ConfigDict(extra="forbid")

    cascade: CascadeConfig = Field(default_factory=CascadeConfig, description="Failures that drag agents down.")
    context_limit: ContextLimitConfig = Field(default_factory=ContextLimitConfig, description="Full contexts.")
    delegation_loop: DelegationLoopConfig = Field(
        default_factory=DelegationLoopConfig, description="The same task handed on again and again."
    )
    empty_result: EmptyResultConfig = Field(default_factory=EmptyResultConfig, description="Results without content.")
    goal_drift: GoalDriftConfig = Field(default_factory=GoalDriftConfig, description="Runs that leave their task.")
    invalid_tool_call: InvalidToolCallConfig = Field(
        default_factory=InvalidToolCallConfig, description="Tool calls that cannot work."
    )
    llm_repetition: LlmRepetitionConfig = Field(
        default_factory=LlmRepetitionConfig, description="Models that say the same again."
    )
    output_truncated: OutputTruncatedConfig = Field(
        default_factory=OutputTruncatedConfig, description="Answers that were cut off."
    )
    retry_loop: RetryLoopConfig = Field(
        default_factory=RetryLoopConfig, description="The same tool call again and again."
    )
    run_limit: RunLimitConfig = Field(default_factory=RunLimitConfig, description="Runs that go on for too long.")
    tool_cycle: ToolCycleConfig = Field(default_factory=ToolCycleConfig, description="Calls in a circle.")
    tool_error: ToolErrorConfig = Field(default_factory=ToolErrorConfig, description="Tool errors in number.")

    def build(self) -> list[Signature]:
        """The signatures that are enabled, in order of name."""
        configs = [getattr(self, name) for name in sorted(type(self).model_fields)]
        return [config.build() for config in configs if config.enabled]
