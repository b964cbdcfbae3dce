-- How different are the scalars that are learnt with different noise (sec. 3.3)?
-- param sweep = NULL: only the runs of this sweep; all when NULL
-- The mean of | |s_1| - |s_2| | over the pairs of seeds and the matrices; without a task, the mean over the tasks. The
-- paper finds 0.009. `magnitude` is the mean of |s|, `magnitude_std` its spread over the matrices.
WITH learnt AS (
    SELECT r.sweep, r.model, r.label, r.task, r.seed, s.tensor, abs(s.value) AS magnitude
    FROM runs r
    JOIN scalars s USING (run_id)
    WHERE r.status = 'complete' AND ($sweep IS NULL OR r.sweep = $sweep)
),
pairs AS (
    SELECT a.sweep, a.model, a.label, a.task, abs(a.magnitude - b.magnitude) AS difference
    FROM learnt a
    JOIN learnt b USING (sweep, model, label, task, tensor)
    WHERE a.seed < b.seed
),
by_task AS (
    SELECT
        l.sweep, l.model, l.label, l.task,
        count(DISTINCT seed) AS seeds, count(DISTINCT tensor) AS matrices,
        avg(magnitude) AS magnitude, stddev_samp(magnitude) AS magnitude_std,
        (SELECT avg(difference) FROM pairs p
         WHERE p.sweep = l.sweep AND p.model = l.model AND p.label = l.label AND p.task = l.task) AS difference
    FROM learnt l
    GROUP BY l.sweep, l.model, l.label, l.task
)
SELECT
    sweep, model, label, task, max(seeds) AS seeds, max(matrices) AS matrices,
    avg(difference) AS difference, avg(magnitude) AS magnitude, avg(magnitude_std) AS magnitude_std,
    CASE WHEN label = 'noise' THEN 9e-3 END AS paper_difference
FROM by_task
GROUP BY GROUPING SETS ((sweep, model, label, task), (sweep, model, label))
ORDER BY sweep, model, label, task NULLS LAST;
