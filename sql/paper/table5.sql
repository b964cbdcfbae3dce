-- How Gaussian is each module of each layer, with and without its values below 1e-3 (Table 5)?
-- param subject = NULL: only this subject; all when NULL
SELECT
    t.subject, t.part, t.layer, t.module,
    avg(t.kurtosis_3s) AS kurtosis_3s,
    avg(f.kurtosis) AS kurtosis_3s_floor,
    avg(t.ratio_3s) AS ratio_3s,
    avg(t.small_ratio) AS small_ratio,
    count(*) AS matrices
FROM tensor_stats t
LEFT JOIN filtered f ON f.tensor_id = t.tensor_id AND f.sigmas = 3 AND f.floor = 1e-3
WHERE t.is_matrix AND ($subject IS NULL OR t.subject = $subject)
GROUP BY t.subject_id, t.subject, t.part, t.layer, t.module
ORDER BY t.subject_id, t.layer IS NULL, t.part, t.layer, t.module;
