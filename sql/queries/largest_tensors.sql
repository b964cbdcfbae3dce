-- Which tensors are the largest?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
SELECT
    subject, name, dtype, shape, n,
    (n * coalesce(try_cast(regexp_extract(dtype, '\d+') AS INTEGER), 8) // 8)::UBIGINT AS bytes,
    bytes / nullif(sum(bytes) OVER (PARTITION BY subject_id), 0) AS share
FROM tensor_stats
WHERE $subject IS NULL OR subject = $subject
ORDER BY bytes DESC, subject_id, ordinal
LIMIT $limit;
