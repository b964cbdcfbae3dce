-- What did the filters keep of a subject's tensors?
-- param subject_id = 1: the subject
SELECT s.name AS subject, t.ordinal, t.name, f.* EXCLUDE (tensor_id)
FROM filtered f
JOIN tensors t ON t.tensor_id = f.tensor_id
JOIN subjects s ON s.subject_id = t.subject_id
WHERE t.subject_id = $subject_id
ORDER BY t.ordinal, f.sigmas, f.floor;
