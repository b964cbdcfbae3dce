-- Which filtered numbers may be off, and by how much, until a scan with --exact?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
SELECT subject, name, sigmas, floor, error_bound, ratio, skewness, kurtosis
FROM filter_stats
WHERE error_bound > 0 AND ($subject IS NULL OR subject = $subject)
ORDER BY error_bound DESC, subject_id, tensor_id, sigmas DESC, floor
LIMIT $limit;
