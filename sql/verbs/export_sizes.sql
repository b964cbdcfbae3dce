-- How many values occur in each of a subject's tensors?
-- param subject_id = 1: the subject
SELECT t.ordinal, count(*) AS size
FROM bins b
JOIN tensors t ON t.tensor_id = b.tensor_id
WHERE t.subject_id = $subject_id
GROUP BY ALL
ORDER BY ALL;
