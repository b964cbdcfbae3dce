-- How two subjects differ, by layer, by role or as a whole, over a table with the answer of compare_tensor. Means are over
-- the matrices that both have; the ratio of sigmas is the geometric mean. `depth_correlation` is that of the sigmas in layers.
CREATE OR REPLACE MACRO compared_by(answer, by_layer, by_role) AS TABLE
WITH matrices AS (
    SELECT
        * REPLACE (
            CASE WHEN is_matrix THEN std_a END AS std_a, CASE WHEN is_matrix THEN std_b END AS std_b,
            CASE WHEN is_matrix THEN std_ratio END AS std_ratio, CASE WHEN is_matrix THEN w1 END AS w1,
            CASE WHEN is_matrix THEN w1_error END AS w1_error, CASE WHEN is_matrix THEN ks END AS ks,
            CASE WHEN by_layer THEN part END AS part, CASE WHEN by_layer THEN layer END AS layer,
            CASE WHEN by_role THEN role END AS role
        ),
        layer IS NOT NULL AS is_in_layer
    FROM query_table(answer)
)
SELECT
    part, layer, role,
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
    max(ks) AS ks_max,
    profile_distance(std_a, std_b) AS distance,
    profile_correlation(std_a, std_b) AS correlation,
    profile_correlation(
        CASE WHEN is_in_layer THEN std_a END, CASE WHEN is_in_layer THEN std_b END
    ) AS depth_correlation
FROM matrices
GROUP BY part, layer, role;
