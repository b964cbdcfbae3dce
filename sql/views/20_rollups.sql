-- What layers, roles and subjects look like. mean, std, skewness and kurtosis are those of all elements of a
-- group's matrices taken together; the numbers at 3 sigma, small_ratio and entropy are means over the matrices.
-- Central sums roll up by the two-level form: with d = mean_i - mean,
--   M2 = sum(m2 + n d^2), M3 = sum(m3 + 3 d m2 + n d^3), M4 = sum(m4 + 4 d m3 + 6 d^2 m2 + n d^4).

CREATE OR REPLACE MACRO rollup(by_layer, by_role) AS TABLE
WITH grouped AS (
    SELECT
        * EXCLUDE (part, layer, role),
        CASE WHEN by_layer THEN part END AS part,
        CASE WHEN by_layer THEN layer END AS layer,
        CASE WHEN by_role THEN role END AS role,
        CASE WHEN is_matrix THEN finite::DOUBLE END AS k  -- elements that count in the pooled moments
    FROM tensor_stats
),
centred AS (
    SELECT *, fsum(k * mean) OVER g / fsum(k) OVER g AS centre, mean - centre AS d
    FROM grouped
    WINDOW g AS (PARTITION BY subject_id, part, layer, role)
),
summed AS (
    SELECT
        subject_id, subject, part, layer, role,
        count(*) AS tensors,
        count(*) FILTER (is_matrix) AS matrices,
        count(*) FILTER (reason IS NOT NULL) AS not_counted,
        coalesce(sum(n) FILTER (is_counted_once), 0)::UBIGINT AS n,
        sum(zeros) FILTER (is_counted_once)::UBIGINT AS zeros,
        sum(nan) FILTER (is_counted_once)::UBIGINT AS nan,
        sum(pos_inf + neg_inf) FILTER (is_counted_once)::UBIGINT AS inf,
        any_value(centre) AS mean,
        fsum(k) AS pooled,
        fsum(k * d ** 2 + m2) FILTER (is_matrix) / pooled AS variance,
        fsum(k * d ** 3 + 3 * d * m2 + m3) FILTER (is_matrix) / pooled AS third,
        fsum(k * d ** 4 + 6 * d ** 2 * m2 + 4 * d * m3 + m4) FILTER (is_matrix) / pooled AS fourth,
        avg(ratio_3s) FILTER (is_matrix) AS ratio_3s,
        avg(skewness_3s) FILTER (is_matrix) AS skewness_3s,
        stddev_samp(skewness_3s) FILTER (is_matrix) AS skewness_3s_std,
        avg(kurtosis_3s) FILTER (is_matrix) AS kurtosis_3s,
        stddev_samp(kurtosis_3s) FILTER (is_matrix) AS kurtosis_3s_std,
        avg(small_ratio) FILTER (is_matrix) AS small_ratio,
        avg(entropy) FILTER (is_matrix) AS entropy
    FROM centred
    GROUP BY subject_id, subject, part, layer, role
)
SELECT
    * EXCLUDE (pooled, variance, third, fourth),
    nan + inf AS non_finite,
    sqrt(variance) AS std,
    third / nullif(variance, 0) ** 1.5 AS skewness,
    fourth / nullif(variance, 0) ** 2 AS kurtosis
FROM summed;

-- One row for each layer of each part; tensors outside the repeated stack have layer NULL.
CREATE OR REPLACE VIEW layer_stats AS SELECT * EXCLUDE (role) FROM rollup(true, false);

-- One row for each role.
CREATE OR REPLACE VIEW role_stats AS SELECT * EXCLUDE (part, layer) FROM rollup(false, true);

-- One row a subject; ratio_3s, skewness_3s and kurtosis_3s are the paper's Table 1.
CREATE OR REPLACE VIEW subject_stats AS SELECT * EXCLUDE (part, layer, role) FROM rollup(false, false);
