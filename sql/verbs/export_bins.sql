-- Which values occur in some of a subject's tensors, and how often?
-- param subject_id = 1: the subject
-- param first = 0: the first ordinal
-- param last = 2147483647: the last ordinal
SELECT s.name AS subject, t.ordinal, t.name, t.coding, b.* EXCLUDE (tensor_id)
FROM bins b
JOIN tensors t ON t.tensor_id = b.tensor_id
JOIN subjects s ON s.subject_id = t.subject_id
WHERE t.subject_id = $subject_id AND t.ordinal BETWEEN $first AND $last
ORDER BY t.ordinal, b.code;
