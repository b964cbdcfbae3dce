-- Which matrices have the largest elements, in sigmas?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
-- A large max_to_p999 makes trouble when a quantiser takes its step from the largest element.
SELECT
    subject, name,
    greatest(abs(min), abs(max)) AS max_abs,
    max_abs / std AS max_abs_sigmas,
    max_abs / nullif(greatest(abs(p001), abs(p999)), 0) AS max_to_p999,
    std, n
FROM tensor_stats
WHERE is_matrix AND std > 0 AND ($subject IS NULL OR subject = $subject)
ORDER BY max_abs_sigmas DESC, subject_id, ordinal
LIMIT $limit;
