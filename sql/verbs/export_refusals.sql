-- Which checkpoints could a census not take in, and why?
SELECT * REPLACE (spec::VARCHAR AS spec) FROM refusals ORDER BY uri, refusals.spec::VARCHAR, last_at;
