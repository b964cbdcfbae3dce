-- Which number formats is each subject stored in, and how much of it in each?
-- param subject = NULL: only this subject; all when NULL
SELECT
    subject, dtype,
    count(*) AS tensors,
    count(*) FILTER (reason IS NULL) AS counted,
    sum(n)::UBIGINT AS n,
    (sum(n * coalesce(try_cast(regexp_extract(dtype, '\d+') AS INTEGER), 8)) // 8)::UBIGINT AS bytes
FROM tensor_stats
WHERE $subject IS NULL OR subject = $subject
GROUP BY subject_id, subject, dtype
ORDER BY subject_id, bytes DESC, dtype;
