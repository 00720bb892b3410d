SELECT
    (SELECT count() FROM {probe}) AS direct,
    (SELECT count() FROM {probe}_target) AS through_view
