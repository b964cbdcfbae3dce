-- Central sums roll up by the two-level form: with d = mean_i - mean,
--   M2 = sum(m2 + n d^2), M3 = sum(m3 + 3 d m2 + n d^3), M4 = sum(m4 + 4 d m3 + 6 d^2 m2 + n d^4).
-- `pooled` is the distribution of all elements of the matrices of a group taken together.

CREATE OR REPLACE MACRO pooled_moments(with_role, with_layer) AS TABLE
WITH matrices AS (
    SELECT
        subject_id,
        CASE WHEN with_layer THEN part END AS part,
        CASE WHEN with_layer THEN layer END AS layer,
        CASE WHEN with_role THEN role END AS role,
        finite::DOUBLE AS n, mean, m2, m3, m4
    FROM tensor_stats
    WHERE is_matrix
),
centred AS (
    SELECT *, mean - fsum(n * mean) OVER g / fsum(n) OVER g AS d, fsum(n * mean) OVER g / fsum(n) OVER g AS centre
    FROM matrices
    WINDOW g AS (PARTITION BY subject_id, part, layer, role)
),
summed AS (
    SELECT
        subject_id, part, layer, role,
        fsum(n) AS pooled_n,
        any_value(centre) AS mean,
        fsum(m2 + n * d * d) AS m2,
        fsum(m3 + 3 * d * m2 + n * d * d * d) AS m3,
        fsum(m4 + 4 * d * m3 + 6 * d * d * m2 + n * d * d * d * d) AS m4
    FROM centred
    GROUP BY ALL
)
SELECT
    subject_id, part, layer, role,
    mean,
    sqrt(m2 / pooled_n) AS std,
    (m3 / pooled_n) / nullif(std, 0) ** 3 AS skewness,
    (m4 / pooled_n) / nullif(std, 0) ** 4 AS kurtosis
FROM summed;

-- One row for each layer of each part; tensors outside the repeated stack have layer NULL.
CREATE OR REPLACE VIEW layer_stats AS
SELECT
    t.subject_id, t.subject, t.part, t.layer,
    count(*) AS tensors,
    count(*) FILTER (is_matrix) AS matrices,
    sum(t.n)::UBIGINT AS n,
    sum(t.zeros)::UBIGINT AS zeros,
    sum(t.nan + t.pos_inf + t.neg_inf)::UBIGINT AS non_finite,
    any_value(p.mean) AS mean,
    any_value(p.std) AS std,
    any_value(p.skewness) AS skewness,
    any_value(p.kurtosis) AS kurtosis,
    avg(t.ratio_3s) FILTER (is_matrix) AS ratio_3s,
    avg(t.skewness_3s) FILTER (is_matrix) AS skewness_3s,
    avg(t.kurtosis_3s) FILTER (is_matrix) AS kurtosis_3s,
    avg(t.small_ratio) FILTER (is_matrix) AS small_ratio,
    avg(t.entropy) FILTER (is_matrix) AS entropy
FROM tensor_stats t
LEFT JOIN pooled_moments(false, true) p
    ON p.subject_id = t.subject_id AND p.part = t.part AND p.layer IS NOT DISTINCT FROM t.layer
GROUP BY ALL;

-- One row for each role.
CREATE OR REPLACE VIEW role_stats AS
SELECT
    t.subject_id, t.subject, t.role,
    count(*) AS tensors,
    count(*) FILTER (is_matrix) AS matrices,
    sum(t.n)::UBIGINT AS n,
    sum(t.zeros)::UBIGINT AS zeros,
    sum(t.nan + t.pos_inf + t.neg_inf)::UBIGINT AS non_finite,
    any_value(p.mean) AS mean,
    any_value(p.std) AS std,
    any_value(p.skewness) AS skewness,
    any_value(p.kurtosis) AS kurtosis,
    avg(t.ratio_3s) FILTER (is_matrix) AS ratio_3s,
    avg(t.skewness_3s) FILTER (is_matrix) AS skewness_3s,
    avg(t.kurtosis_3s) FILTER (is_matrix) AS kurtosis_3s,
    avg(t.small_ratio) FILTER (is_matrix) AS small_ratio,
    avg(t.entropy) FILTER (is_matrix) AS entropy
FROM tensor_stats t
LEFT JOIN pooled_moments(true, false) p ON p.subject_id = t.subject_id AND p.role = t.role
GROUP BY ALL;

-- One row a subject. ratio, skewness and kurtosis at 3 sigma are the mean over its matrices (Table 1).
CREATE OR REPLACE VIEW subject_stats AS
SELECT
    t.subject_id, t.subject,
    count(*) AS tensors,
    count(*) FILTER (is_matrix) AS matrices,
    count(*) FILTER (t.reason IS NOT NULL) AS not_counted,
    sum(t.n)::UBIGINT AS n,
    sum(t.zeros)::UBIGINT AS zeros,
    sum(t.nan)::UBIGINT AS nan,
    sum(t.pos_inf + t.neg_inf)::UBIGINT AS inf,
    any_value(p.mean) AS mean,
    any_value(p.std) AS std,
    any_value(p.skewness) AS skewness,
    any_value(p.kurtosis) AS kurtosis,
    avg(t.ratio_3s) FILTER (is_matrix) AS ratio_3s,
    avg(t.skewness_3s) FILTER (is_matrix) AS skewness_3s,
    stddev_samp(t.skewness_3s) FILTER (is_matrix) AS skewness_3s_std,
    avg(t.kurtosis_3s) FILTER (is_matrix) AS kurtosis_3s,
    stddev_samp(t.kurtosis_3s) FILTER (is_matrix) AS kurtosis_3s_std,
    avg(t.small_ratio) FILTER (is_matrix) AS small_ratio
FROM tensor_stats t
LEFT JOIN pooled_moments(false, false) p ON p.subject_id = t.subject_id
GROUP BY ALL;
