-- One row a tensor of every complete subject; numbers are those of its finite elements.
-- shape_class: iqr_ratio = IQR / (1.349 sigma) is 1 for a Gaussian and falls as the mass gathers in the
-- middle; the limits lie between the classes of the paper's simulation (App. B.2, C.6).
CREATE OR REPLACE VIEW tensor_stats AS
WITH at_3s AS (  -- renamed, because a column would take the place of an alias of the same name below
    SELECT tensor_id, kept AS kept_3s, ratio AS ratio_3s, skewness AS skewness_3s, kurtosis AS kurtosis_3s
    FROM filtered
    WHERE filtered.sigmas = 3 AND filtered.floor = 0
)
SELECT
    s.subject_id,
    s.name AS subject,
    t.tensor_id,
    t.ordinal,
    t.name,
    t.part,
    t.layer,
    t.module,
    t.role,
    t.dtype,
    t.shape,
    t.n,
    t.n - t.nan - t.pos_inf - t.neg_inf AS finite,
    len(t.shape) >= 2 AND coalesce(finite, 0) > 0
        AND coalesce(t.form, '') NOT IN ('codes', 'unscaled', 'factors') AS is_matrix,
    -- of two rows for the same parameters one counts: the first name of tied weights, the values of codes
    t.alias_of IS NULL AND t.form IS DISTINCT FROM 'codes' AS is_counted_once,
    t.mean,
    sqrt(t.m2 / nullif(finite, 0)) AS std,
    (t.m3 / finite) / nullif(std, 0) ** 3 AS skewness,
    (t.m4 / finite) / nullif(std, 0) ** 4 AS kurtosis,
    t.min,
    t.max,
    t.zeros,
    t.nan,
    t.pos_inf,
    t.neg_inf,
    t.small / nullif(finite, 0) AS small_ratio,
    t.p001, t.p01, t.p05, t.p25, t.p50, t.p75, t.p95, t.p99, t.p999,
    t.p75 - t.p25 AS iqr,
    iqr / (1.349 * nullif(std, 0)) AS iqr_ratio,
    t.entropy,
    t.gaussian_entropy,
    t.gaussian_entropy - t.entropy AS entropy_gap,
    t.ks,
    t.error_bound,
    f.kept_3s,
    f.ratio_3s,
    f.skewness_3s,
    f.kurtosis_3s,
    CASE
        WHEN coalesce(finite, 0) = 0 THEN NULL
        WHEN iqr_ratio IS NULL OR iqr_ratio < 0.18 THEN 'line'
        WHEN iqr_ratio < 0.42 THEN 'inverted_t'
        WHEN iqr_ratio < 0.87 THEN 'sharp'
        ELSE 'gaussian'
    END AS shape_class,
    i.zero_rows,
    t.m2,
    t.m3,
    t.m4,
    t.coding,
    t.note,
    t.reason,
    t.alias_of,
    t.form,
    -- what scan --iid adds, NULL where it was not asked for or cannot be
    i.row_lag,
    i.row_lag_limit,
    i.column_lag,
    i.column_lag_limit,
    i.row_spread,
    i.row_spread_low,
    i.row_spread_high,
    i.row_sigma_cv,
    i.column_spread,
    i.column_spread_low,
    i.column_spread_high,
    i.column_sigma_cv,
    i.outlier_rows,
    i.outlier_row,
    i.outlier_row_ratio,
    i.outlier_columns,
    i.outlier_column,
    i.outlier_column_ratio,
    i.singular_values,
    i.singular_distance,
    i.singular_distance_limit,
    i.singular_beyond,
    i.singular_ratio,
    i.matrix AS iid_matrix,
    i.reason AS iid_reason
FROM tensors t
JOIN subjects s ON s.subject_id = t.subject_id AND s.status = 'complete'
LEFT JOIN at_3s f ON f.tensor_id = t.tensor_id
LEFT JOIN iid i ON i.tensor_id = t.tensor_id;
