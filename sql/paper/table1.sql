-- How Gaussian is each subject within 3 sigma: kept share, skewness and kurtosis (Table 1)?
-- param subject = NULL: only this subject; all when NULL
-- Means and sample standard deviations over the matrices.
SELECT
    subject,
    count(*) FILTER (is_matrix) AS matrices,
    avg(ratio_3s) FILTER (is_matrix) AS ratio,
    100 * avg(ratio_3s) FILTER (is_matrix) AS ratio_percent,
    avg(skewness_3s) FILTER (is_matrix) AS skewness,
    stddev_samp(skewness_3s) FILTER (is_matrix) AS skewness_std,
    avg(kurtosis_3s) FILTER (is_matrix) AS kurtosis,
    stddev_samp(kurtosis_3s) FILTER (is_matrix) AS kurtosis_std
FROM tensor_stats
WHERE $subject IS NULL OR subject = $subject
GROUP BY subject_id, subject
ORDER BY subject_id;
