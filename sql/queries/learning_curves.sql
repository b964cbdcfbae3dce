-- How do the loss and the scores of runs change from update to update?
-- param run = NULL: only this run; all when NULL
-- param sweep = NULL: only the runs of this sweep; all when NULL
-- param metric = loss: which number; eval_score is the score, in per cent
SELECT r.name AS run, r.label, r.task, r.r, r.seed, m.step, m.value
FROM runs r
JOIN metrics m USING (run_id)
WHERE m.name = $metric AND ($run IS NULL OR r.name = $run) AND ($sweep IS NULL OR r.sweep = $sweep)
ORDER BY r.run_id, m.step;
