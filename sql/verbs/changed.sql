-- How much of a base did a difference find changed?
-- param subject_id = 1: the difference
SELECT
    coalesce(sum(n - zeros) / nullif(sum(n), 0), 0) AS changed_ratio,
    count(*) FILTER (zeros = n AND n > 0) AS frozen
FROM tensors
WHERE subject_id = $subject_id AND zeros IS NOT NULL
ORDER BY ALL;
