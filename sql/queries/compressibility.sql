-- How many bytes would an ideal entropy coder need for each subject?
-- param subject = NULL: only this subject; all when NULL
-- Each tensor with a code of its own, whose table is not counted. Of wider floats only the top 16 bits are coded.
WITH sizes AS (
    SELECT
        subject_id, subject, n,
        regexp_extract(dtype, '\d+')::INTEGER AS bits,
        entropy + greatest(bits - 16, 0) AS coded_bits
    FROM tensor_stats
    WHERE finite > 0 AND ($subject IS NULL OR subject = $subject)
)
SELECT
    subject,
    count(*) AS tensors,
    sum(n)::UBIGINT AS n,
    (sum(n * bits) // 8)::UBIGINT AS bytes,
    sum(n * coded_bits) / 8 AS coded_bytes,
    1 - coded_bytes / bytes AS saved_ratio,
    sum(n * bits) / sum(n) AS bits_an_element,
    sum(n * coded_bits) / sum(n) AS coded_bits_an_element
FROM sizes
GROUP BY subject_id, subject
ORDER BY subject_id;
