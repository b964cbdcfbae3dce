-- How large is what one difference or adapter has learnt, role by role?
-- param subject_id = 1: the subject
SELECT
    role,
    count(*) AS matrices,
    count(*) FILTER (frozen) AS frozen,
    avg(std) AS std,
    avg(relative_std) AS relative_std,
    avg(changed_ratio) AS changed_ratio,
    avg(ratio_3s) FILTER (NOT frozen) AS ratio_3s,
    avg(kurtosis_3s) FILTER (NOT frozen) AS kurtosis_3s
FROM delta_stats
WHERE subject_id = $subject_id AND is_matrix
GROUP BY role
ORDER BY std DESC, role;
