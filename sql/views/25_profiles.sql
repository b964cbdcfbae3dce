-- How the sigmas of two sets of tensors compare, pair by pair. The profile of a subject is the sigma of each of
-- its matrices, taken as logarithms: so all depths and roles weigh the same, and 0.01 is a difference of 1 %.
CREATE OR REPLACE MACRO std_gap(a, b) AS avg(abs(b - a));  -- the paper's |sigma_1 - sigma_2| (Table 7)
CREATE OR REPLACE MACRO profile_distance(a, b) AS sqrt(avg(ln(nullif(b, 0) / nullif(a, 0)) ** 2));
CREATE OR REPLACE MACRO profile_correlation(a, b) AS  -- NULL without spread, and of fewer than three pairs
    CASE WHEN count(ln(nullif(a, 0)) + ln(nullif(b, 0))) > 2 AND isfinite(corr(ln(nullif(a, 0)), ln(nullif(b, 0))))
         THEN corr(ln(nullif(a, 0)), ln(nullif(b, 0))) END;
