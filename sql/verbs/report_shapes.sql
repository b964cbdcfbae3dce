-- Which shapes do the matrices of one subject have, role by role?
-- param subject_id = 1: the subject
SELECT
    role,
    count(*) AS matrices,
    count(*) FILTER (shape_class = 'gaussian') AS gaussian,
    count(*) FILTER (shape_class = 'sharp') AS sharp,
    count(*) FILTER (shape_class = 'inverted_t') AS inverted_t,
    count(*) FILTER (shape_class = 'line') AS line,
    avg(std) AS std,
    avg(ratio_3s) AS ratio_3s,
    avg(skewness_3s) AS skewness_3s,
    avg(kurtosis_3s) AS kurtosis_3s,
    avg(small_ratio) AS small_ratio
FROM tensor_stats
WHERE subject_id = $subject_id AND is_matrix
GROUP BY role
ORDER BY matrices DESC, role;
