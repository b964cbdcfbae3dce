-- Which scalars has a run learnt?
-- param run_id = 1: the run
SELECT r.name AS run, s.tensor, s.value
FROM scalars s
JOIN runs r USING (run_id)
WHERE s.run_id = $run_id
ORDER BY s.tensor, s.value;
