-- One row a tensor of what was learnt: dW of a tuned checkpoint or of an adapter (kinds delta and adapter).
-- `base` and `tuned` are the names of the parents that are in the warehouse; relative_std, the std of dW over that
-- of the base's tensor, needs the base there. Zeros are the elements that did not change.
CREATE OR REPLACE VIEW delta_stats AS
WITH derived AS (
    SELECT
        subject_id, kind, spec, parent_ids,
        spec ->> 'method' AS method,
        try_cast(spec ->> 'r' AS INTEGER) AS r
    FROM subjects
    WHERE kind IN ('delta', 'adapter')
),
parents AS (  -- the base comes first, unless it is not in the warehouse
    SELECT
        d.subject_id,
        any_value(p.subject_id) FILTER (is_base) AS base_id,
        any_value(p.name) FILTER (is_base) AS base,
        any_value(p.name) FILTER (NOT is_base) AS tuned
    FROM (
        SELECT subject_id, kind, len(parent_ids) AS known, spec ->> 'tuned' AS tuned_uri,
               unnest(parent_ids) AS parent_id, generate_subscripts(parent_ids, 1) AS position
        FROM derived
    ) d
    JOIN subjects p ON p.subject_id = d.parent_id,
    LATERAL (
        SELECT position = 1 AND (known > 1 OR d.kind = 'adapter' OR p.uri IS DISTINCT FROM tuned_uri) AS is_base
    )
    GROUP BY d.subject_id
),
places AS (  -- a model that was wrapped to be tuned has other names; a matrix is then known by its place
    SELECT subject_id, part, layer, module, any_value(std) AS std
    FROM tensor_stats
    WHERE is_matrix AND subject_id IN (SELECT base_id FROM parents)
    GROUP BY ALL
    HAVING count(*) = 1
)
SELECT
    t.subject_id,
    t.subject,
    d.kind,
    d.method,
    d.r,
    p.base_id,
    p.base,
    p.tuned,
    t.tensor_id,
    t.ordinal,
    t.name,
    t.part,
    t.layer,
    t.module,
    t.role,
    t.shape,
    t.is_matrix,
    t.n,
    t.zeros,
    t.zeros / nullif(t.n, 0) AS zero_ratio,
    (t.n - t.zeros) / nullif(t.n, 0) AS changed_ratio,
    t.zeros = t.n AND t.n > 0 AS frozen,
    t.mean,
    t.std,
    t.ratio_3s,
    t.skewness_3s,
    t.kurtosis_3s,
    t.std / nullif(coalesce(b.std, m.std), 0) AS relative_std,
    t.reason
FROM tensor_stats t
JOIN derived d USING (subject_id)
LEFT JOIN parents p USING (subject_id)
LEFT JOIN tensor_stats b ON b.subject_id = p.base_id AND b.name = t.name
LEFT JOIN places m ON m.subject_id = p.base_id AND t.is_matrix AND m.module = t.module
    AND m.part = t.part AND m.layer IS NOT DISTINCT FROM t.layer;
