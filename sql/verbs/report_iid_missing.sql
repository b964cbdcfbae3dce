-- Which matrices of one subject were not looked at for order, and why?
-- param subject_id = 1: the subject
SELECT name, shape, iid_reason AS reason
FROM tensor_stats
WHERE subject_id = $subject_id AND is_matrix AND iid_reason IS NOT NULL
ORDER BY ordinal;
