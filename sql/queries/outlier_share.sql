-- Where do the most elements lie outside 3 sigma, by layer and role?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
-- Of a Gaussian it is 0.0027.
SELECT
    subject, part, layer, role,
    1 - avg(ratio_3s) AS outlier_ratio,
    1 - min(ratio_3s) AS outlier_ratio_max,
    count(*) AS matrices
FROM tensor_stats
WHERE is_matrix AND std > 0 AND ($subject IS NULL OR subject = $subject)
GROUP BY subject_id, subject, part, layer, role
ORDER BY outlier_ratio DESC, subject_id, part, layer, role
LIMIT $limit;
