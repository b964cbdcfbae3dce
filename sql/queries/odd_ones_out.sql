-- Which matrices differ the most in sigma from the others of their role?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
-- In robust standard deviations of log sigma: median, and 1.4826 times the median distance to it.
WITH peers AS (
    SELECT
        *,
        median(ln(std)) OVER role_mates AS log_median,
        mad(ln(std)) OVER role_mates AS log_spread
    FROM tensor_stats
    WHERE is_matrix AND std > 0 AND layer IS NOT NULL AND ($subject IS NULL OR subject = $subject)
    WINDOW role_mates AS (PARTITION BY subject_id, part, role)
)
SELECT
    subject, name, role, std,
    exp(log_median) AS role_std,
    (ln(std) - log_median) / (1.4826 * log_spread) AS deviations
FROM peers
WHERE log_spread > 0
ORDER BY abs(deviations) DESC, subject_id, ordinal
LIMIT $limit;
