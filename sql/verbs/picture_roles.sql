-- How do the matrices of one subject look by part, role and layer?
-- param subject_id = 1: the subject
SELECT
    subject, part, role, layer,
    avg(std) AS std,
    avg(kurtosis_3s) AS kurtosis,
    avg(ratio_3s) AS ratio
FROM tensor_stats
WHERE subject_id = $subject_id AND is_matrix AND layer IS NOT NULL
GROUP BY subject, part, role, layer
ORDER BY part, role, layer;
