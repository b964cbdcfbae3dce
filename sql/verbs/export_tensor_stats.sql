-- What are the numbers of each of a subject's tensors?
-- param subject_id = 1: the subject
SELECT * EXCLUDE (subject_id, tensor_id)
FROM tensor_stats
WHERE subject_id = $subject_id
ORDER BY ordinal;
