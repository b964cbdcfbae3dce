-- Which tensors are not counted, and why?
-- param subject = NULL: only this subject; all when NULL
SELECT subject, name, reason, dtype, shape, n
FROM tensor_stats
WHERE reason IS NOT NULL AND ($subject IS NULL OR subject = $subject)
ORDER BY subject_id, ordinal;
