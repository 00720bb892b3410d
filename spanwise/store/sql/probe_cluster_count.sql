SELECT count() AS direct, direct AS through_view FROM {probe}
