-- Which tensors of one subject are not counted, and why?
-- param subject_id = 1: the subject
SELECT name, dtype, shape, reason
FROM tensor_stats
WHERE subject_id = $subject_id AND reason IS NOT NULL
ORDER BY ordinal;
