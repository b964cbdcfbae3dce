-- How do two subjects differ, layer by layer?
-- Over the temporary table `compared`, the answer of compare_tensor. Means over the matrices that both have; the ratio
-- of sigmas is the geometric mean.
WITH matrices AS (
    SELECT * REPLACE (
        CASE WHEN is_matrix THEN std_a END AS std_a, CASE WHEN is_matrix THEN std_b END AS std_b,
        CASE WHEN is_matrix THEN std_ratio END AS std_ratio, CASE WHEN is_matrix THEN w1 END AS w1,
        CASE WHEN is_matrix THEN w1_error END AS w1_error, CASE WHEN is_matrix THEN ks END AS ks
    )
    FROM compared
)
SELECT
    part, layer,
    count(*) FILTER (state NOT LIKE 'only in _') AS tensors,
    count(*) FILTER (state = 'identical') AS identical,
    count(*) FILTER (state = 'not counted') AS not_counted,
    count(*) FILTER (state = 'only in a') AS only_in_a,
    count(*) FILTER (state = 'only in b') AS only_in_b,
    count(*) FILTER (is_matrix) AS matrices,
    std_gap(std_a, std_b) AS std_gap,
    exp(avg(ln(nullif(std_ratio, 0)))) AS std_ratio,
    avg(w1) AS w1,
    avg(w1_error) AS w1_error,
    avg(ks) AS ks,
    max(ks) AS ks_max
FROM matrices
GROUP BY part, layer
ORDER BY part, layer NULLS LAST;
