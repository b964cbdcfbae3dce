-- Which tensors are dead or constant, so that all their finite elements are one value?
-- param subject = NULL: only this subject; all when NULL
SELECT
    subject, name,
    CASE WHEN min = 0 THEN 'dead' ELSE 'constant' END AS kind,
    min AS value, role, shape, n
FROM tensor_stats
WHERE finite > 1 AND min = max AND ($subject IS NULL OR subject = $subject)
ORDER BY is_matrix DESC, n DESC, subject_id, ordinal;
