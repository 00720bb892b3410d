//! Token usage: what a producer wrote, brought to totals that include the cache and the reasoning.

use crate::plan::Basis;
use crate::view::Usage;

/// Usage as the rows found it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reported {
    pub usage: Usage,
    pub total: Option<u64>,
    /// The producer keeps cache reads and writes in buckets beside the input.
    pub cache_outside: bool,
    /// The producer keeps reasoning beside the output.
    pub reasoning_outside: bool,
    /// The provider's own input count, from metadata beside the reported one.
    pub native_input: Option<u64>,
}

/// What decides how the reported numbers are meant.
#[derive(Clone, Copy, Debug)]
pub struct Context<'s> {
    pub basis: Basis,
    pub provider: &'s str,
    pub model: &'s str,
    /// A call that succeeded, so that it cannot have used nothing.
    pub must_have_usage: bool,
}

/// The inclusive totals and what was done to reach them, see the column `input_basis`.
pub fn settle(reported: Reported, context: &Context<'_>) -> (Usage, &'static str) {
    let mut usage = reported.usage;
    if context.must_have_usage && usage.input.unwrap_or(0) == 0 && usage.output.unwrap_or(0) == 0 {
        // streams without usage are reported as zero by some producers
        return (Usage::default(), "");
    }
    let family = Family::of(context.provider, context.model);
    if reported.reasoning_outside
        && let (Some(output), Some(reasoning)) = (usage.output, usage.reasoning)
    {
        usage.output = Some(output.saturating_add(reasoning));
    } else if family == Family::Gemini
        && let (Some(input), Some(output), Some(total)) = (usage.input, usage.output, reported.total)
        && total > input.saturating_add(output)
    {
        // candidates without the thoughts
        usage.output = Some(total - input);
    }
    let Some(input) = usage.input else {
        return (usage, if usage == Usage::default() { "" } else { "unknown" });
    };
    let cache_known = usage.cache_read.is_some() || usage.cache_write.is_some();
    let cache = usage.cache_read.unwrap_or(0).saturating_add(usage.cache_write.unwrap_or(0));
    let exclusive = if reported.cache_outside || cache > input {
        // a part cannot be larger than its whole
        Some(true)
    } else {
        match context.basis {
            Basis::Inclusive => Some(false),
            Basis::Exclusive => Some(true),
            Basis::Unknown => None,
            Basis::VercelNative if reported.native_input.is_some() => {
                Some(reported.native_input == Some(input) && cache > 0)
            }
            Basis::ProviderNative | Basis::VercelNative => match family {
                Family::Anthropic => Some(true),
                Family::Unknown => None,
                Family::Gemini | Family::Other => Some(false),
            },
        }
    };
    match exclusive {
        Some(true) if cache_known => {
            usage.input = Some(input.saturating_add(cache));
            (usage, "exclusive_fixed")
        }
        Some(true) => (usage, "exclusive_unknown"),
        Some(false) => (usage, "inclusive"),
        None => (usage, "unknown"),
    }
}

/// How the provider itself counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// Input without cache. Bedrock's Converse API counts that way for every model.
    Anthropic,
    Gemini,
    Other,
    Unknown,
}

impl Family {
    fn of(provider: &str, model: &str) -> Self {
        match provider {
            "anthropic" => Family::Anthropic,
            "aws.bedrock" if has_any(model, &["anthropic", "claude", "nova"]) => Family::Anthropic,
            "gcp.gemini" | "gcp.vertex_ai" | "gcp.gen_ai" => {
                if model.contains("claude") {
                    Family::Anthropic
                } else {
                    Family::Gemini
                }
            }
            "" if model.contains("claude") => Family::Anthropic,
            "" if model.contains("gemini") => Family::Gemini,
            "" if has_any(model, &["gpt-", "o1", "o3", "o4", "text-embedding-"]) => Family::Other,
            "" => Family::Unknown,
            _ => Family::Other,
        }
    }
}

fn has_any(text: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| text.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anthropic(basis: Basis) -> Context<'static> {
        Context { basis, provider: "anthropic", model: "claude-sonnet-4-5", must_have_usage: true }
    }

    fn reported(input: u64, output: u64, read: Option<u64>, write: Option<u64>) -> Reported {
        Reported {
            usage: Usage {
                input: Some(input),
                output: Some(output),
                cache_read: read,
                cache_write: write,
                reasoning: None,
            },
            ..Reported::default()
        }
    }

    #[test]
    fn cache_larger_than_input_is_exclusive_whatever_the_table_says() {
        let (usage, basis) = settle(reported(37, 29, Some(1024), Some(211)), &anthropic(Basis::Inclusive));
        assert_eq!((usage.input, basis), (Some(1272), "exclusive_fixed"));
    }

    #[test]
    fn a_small_cache_proves_nothing() {
        let (usage, basis) = settle(reported(1272, 29, Some(100), None), &anthropic(Basis::Inclusive));
        assert_eq!((usage.input, basis), (Some(1272), "inclusive"));
        let (usage, basis) = settle(reported(1272, 29, Some(100), None), &anthropic(Basis::Unknown));
        assert_eq!((usage.input, basis), (Some(1272), "unknown"));
    }

    #[test]
    fn exclusive_input_without_cache_counts_is_left_alone_and_marked() {
        let (usage, basis) = settle(reported(37, 29, None, None), &anthropic(Basis::ProviderNative));
        assert_eq!((usage.input, basis), (Some(37), "exclusive_unknown"));
    }

    #[test]
    fn vercel_metadata_tells_exclusive_from_inclusive() {
        let context = anthropic(Basis::VercelNative);
        let with_metadata = |input| Reported { native_input: Some(37), ..reported(input, 1, Some(10), None) };
        assert_eq!(settle(with_metadata(37), &context).0.input, Some(47));
        assert_eq!(settle(with_metadata(47), &context).0.input, Some(47));
    }

    #[test]
    fn gemini_total_reveals_thoughts_outside_the_output() {
        let context = Context { provider: "gcp.vertex_ai", model: "gemini-2.5-pro", ..anthropic(Basis::Inclusive) };
        let vertex = Reported { total: Some(2023), ..reported(5, 845, None, None) };
        assert_eq!(settle(vertex, &context).0.output, Some(2018));
        let openai = Context { provider: "openai", model: "gpt-4o", ..context };
        assert_eq!(settle(vertex, &openai).0.output, Some(845));
    }

    #[test]
    fn zero_tokens_of_a_call_that_worked_are_unknown() {
        let (usage, basis) = settle(reported(0, 0, Some(0), None), &anthropic(Basis::Inclusive));
        assert_eq!((usage, basis), (Usage::default(), ""));
        let failed = Context { must_have_usage: false, ..anthropic(Basis::Inclusive) };
        assert_eq!(settle(reported(0, 0, None, None), &failed).0.input, Some(0));
    }

    #[test]
    fn reasoning_larger_than_output_does_not_underflow_anything() {
        let mut odd = reported(10, 50, None, None);
        odd.usage.reasoning = Some(60);
        let openai = Context { provider: "openai", ..anthropic(Basis::Inclusive) };
        assert_eq!(settle(odd, &openai).0.output, Some(50));
    }
}
