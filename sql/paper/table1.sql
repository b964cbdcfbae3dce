-- How Gaussian is each subject within 3 sigma: kept share, skewness and kurtosis (Table 1)?
-- param subject = NULL: only this subject; all when NULL
-- param paper = NULL: the paper's own numbers of subjects, as JSON; gaussmeter paper gives them
-- Means and sample standard deviations over the matrices; paper_*: what the paper says of the same model.
WITH paper AS (
    SELECT unnest(from_json($paper::JSON, '[{"subject_id": "INTEGER", "model": "VARCHAR", "ratio_percent": "DOUBLE",
        "skewness": "DOUBLE", "kurtosis": "DOUBLE", "kurtosis_std": "DOUBLE"}]')) AS p
)
SELECT
    t.subject,
    count(*) FILTER (is_matrix) AS matrices,
    avg(ratio_3s) FILTER (is_matrix) AS ratio,
    100 * avg(ratio_3s) FILTER (is_matrix) AS ratio_percent,
    avg(skewness_3s) FILTER (is_matrix) AS skewness,
    stddev_samp(skewness_3s) FILTER (is_matrix) AS skewness_std,
    avg(kurtosis_3s) FILTER (is_matrix) AS kurtosis,
    stddev_samp(kurtosis_3s) FILTER (is_matrix) AS kurtosis_std,
    any_value(p.model) AS paper_model,
    any_value(p.ratio_percent) AS paper_ratio_percent,
    any_value(p.skewness) AS paper_skewness,
    any_value(p.kurtosis) AS paper_kurtosis,
    any_value(p.kurtosis_std) AS paper_kurtosis_std
FROM tensor_stats t
LEFT JOIN paper ON p.subject_id = t.subject_id
WHERE $subject IS NULL OR t.subject_id = $subject::INTEGER
GROUP BY t.subject_id, t.subject
ORDER BY t.subject_id;
