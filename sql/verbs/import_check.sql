-- Which tensors of a subject that is being imported contradict themselves?
-- param subject_id = 1: the subject
-- param first = 1: its first tensor
-- param last = 1: its last tensor; numbers, because DuckDB 2.0.0 miscalculates sums over a range from subqueries
WITH meanings AS (
    SELECT coding, max(code) AS last, bool_or(step <> 0) AS has_low FROM codes GROUP BY coding
),
counted AS (
    SELECT
        tensor_id, count(*) AS bins, sum(bins.n) AS total, min(bins.n) AS least, max(code) AS last,
        count(low_sum) AS low, count(low_square_sum) AS low_square,
        bool_or(low_sum > 65535::HUGEINT * bins.n) AS beyond
    FROM bins
    WHERE tensor_id BETWEEN $first AND $last
    GROUP BY tensor_id
),
judged AS (
    SELECT
        t.ordinal, t.name,
        CASE
            WHEN t.ordinal < 0 OR count(*) OVER (PARTITION BY t.ordinal) > 1 THEN 'is there twice'
            WHEN len(list_filter(t.shape, lambda d: d IS NULL OR d < 0)) > 0 THEN 'has an impossible shape'
            WHEN t.reason IS NOT NULL AND c.bins > 0 THEN 'is not counted, and yet has counts'
            WHEN t.reason IS NULL AND m.coding IS NULL THEN 'has a coding that is not known here'
            WHEN t.reason IS NULL AND coalesce(c.total, 0) <> t.n THEN
                format('has {:,} elements and counts of {:,}', t.n, coalesce(c.total, 0))
            WHEN c.least = 0 OR c.last > m.last OR c.beyond
                OR c.low <> (CASE WHEN m.has_low THEN c.bins ELSE 0 END) OR c.low_square <> c.low
                THEN format('has counts that are none of {}', t.coding)
        END AS problem
    FROM tensors t
    LEFT JOIN counted c USING (tensor_id)
    LEFT JOIN meanings m ON m.coding = t.coding
    WHERE t.subject_id = $subject_id
)
SELECT name, problem FROM judged WHERE problem IS NOT NULL ORDER BY ordinal LIMIT 1;
