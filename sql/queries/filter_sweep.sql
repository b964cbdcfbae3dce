-- What do the matrices of each subject keep within 1 to 4 sigma, and how Gaussian is it?
-- param subject = NULL: only this subject; all when NULL
-- param floor = 0: smaller magnitudes are dropped too
-- Means over the matrices, beside what a Gaussian cut there would have.
WITH sweep AS (
    SELECT 1e0 AS sigmas, 0.682689492e0 AS gaussian_ratio, 1.940919920e0 AS gaussian_kurtosis, *
    FROM filtered_at(1, $floor, only_subject := $subject)
    UNION ALL SELECT 1.5, 0.866385597, 2.122114933, * FROM filtered_at(1.5, $floor, only_subject := $subject)
    UNION ALL SELECT 2, 0.954499736, 2.365536717, * FROM filtered_at(2, $floor, only_subject := $subject)
    UNION ALL SELECT 2.5, 0.987580669, 2.624220161, * FROM filtered_at(2.5, $floor, only_subject := $subject)
    UNION ALL SELECT 3, 0.997300204, 2.828885563, * FROM filtered_at(3, $floor, only_subject := $subject)
    UNION ALL SELECT 4, 0.999936658, 2.986047473, * FROM filtered_at(4, $floor, only_subject := $subject)
)
SELECT
    subject, sigmas,
    count(*) AS matrices,
    avg(ratio) AS ratio, gaussian_ratio,
    avg(skewness) FILTER (kept > 0) AS skewness,
    avg(kurtosis) FILTER (kept > 0) AS kurtosis, gaussian_kurtosis
FROM sweep
WHERE is_matrix
GROUP BY subject_id, subject, sigmas, gaussian_ratio, gaussian_kurtosis
ORDER BY subject_id, sigmas;
