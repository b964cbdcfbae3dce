-- What does another warehouse have to know of a subject's tensors?
-- param subject_id = 1: the subject
SELECT s.name AS subject, t.* EXCLUDE (subject_id, tensor_id)
FROM tensors t
JOIN subjects s ON s.subject_id = t.subject_id
WHERE t.subject_id = $subject_id
ORDER BY t.ordinal;
