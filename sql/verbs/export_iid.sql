-- What do the rows and columns of a subject's tensors say of chance?
-- param subject_id = 1: the subject
SELECT s.name AS subject, t.ordinal, t.name, i.* EXCLUDE (tensor_id)
FROM iid i
JOIN tensors t ON t.tensor_id = i.tensor_id
JOIN subjects s ON s.subject_id = t.subject_id
WHERE t.subject_id = $subject_id
ORDER BY t.ordinal;
