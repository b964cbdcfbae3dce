-- What are the quantiles of each tensor?
-- param subject = NULL: only this subject; all when NULL
SELECT subject, name, min, p001, p01, p05, p25, p50, p75, p95, p99, p999, max
FROM tensor_stats
WHERE finite > 0 AND ($subject IS NULL OR subject = $subject)
ORDER BY subject_id, ordinal;
