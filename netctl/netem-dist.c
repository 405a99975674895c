/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tables for netem's delay distributions. The kernel draws a uniform index into the table and adds
 * jitter * entry / NETEM_DIST_SCALE to the delay (sch_netem.c, tabledist()), so entry i is the quantile (i + 1/2) / n
 * of a distribution with mean 0 and standard deviation 1, times the scale, as 16 bits.
 *
 * normal        the standard normal distribution
 * pareto        Pareto with shape 3 and scale 1, moved to mean 0 and divided by its standard deviation: mean 3/2,
 *               variance 3/4
 * paretonormal  sum of 1/4 of a normal and 3/4 of a pareto variable (the mix that tc's table of this name has), put
 *               to deviation 1; quantiles of the sum by merging a grid of both
 */

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "netctl/tc.h"

#define ENTRIES 4096
#define GRID 256 /* per variable: GRID * GRID = 16 samples for each entry */

static int16_t tables[_SHAPE_DISTRIBUTION_MAX][ENTRIES];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Quantile of the standard normal distribution: bisection of erfc, exact to the last bit that matters. */
static double normal_quantile(double p)
{
        double low = -8, high = 8;

        for (int i = 0; i < 60; i++) {
                double mid = (low + high) / 2;
                if (0.5 * erfc(-mid * M_SQRT1_2) < p)
                        low = mid;
                else
                        high = mid;
        }
        return (low + high) / 2;
}

static double pareto_quantile(double p)
{
        return (1 / cbrt(1 - p) - 1.5) / sqrt(0.75);
}

static int16_t scaled(double v)
{
        double x = rint(v * NETEM_DIST_SCALE);

        return x > INT16_MAX ? INT16_MAX : x < INT16_MIN ? INT16_MIN : (int16_t) x;
}

static int compare_double(const void *a, const void *b)
{
        double x = *(const double *) a, y = *(const double *) b;

        return x < y ? -1 : x > y;
}

static void fill_paretonormal(int16_t *table)
{
        static double sums[GRID * GRID];
        const double deviation = sqrt(0.25 * 0.25 + 0.75 * 0.75);

        for (int i = 0; i < GRID; i++) {
                double n = normal_quantile((i + 0.5) / GRID);
                for (int j = 0; j < GRID; j++)
                        sums[i * GRID + j] =
                                (0.25 * n + 0.75 * pareto_quantile((j + 0.5) / GRID)) / deviation;
        }
        qsort(sums, GRID * GRID, sizeof(sums[0]), compare_double);
        for (int i = 0; i < ENTRIES; i++)
                table[i] = scaled(sums[i * (GRID * GRID / ENTRIES) + GRID * GRID / ENTRIES / 2]);
}

static void fill(void)
{
        for (int i = 0; i < ENTRIES; i++) {
                double p = (i + 0.5) / ENTRIES;
                tables[SHAPE_NORMAL][i] = scaled(normal_quantile(p));
                tables[SHAPE_PARETO][i] = scaled(pareto_quantile(p));
        }
        fill_paretonormal(tables[SHAPE_PARETONORMAL]);
}

const int16_t *netem_distribution(ShapeDistribution d, size_t *ret_entries)
{
        if (d <= SHAPE_UNIFORM || d >= _SHAPE_DISTRIBUTION_MAX)
                return NULL;
        (void) pthread_once(&once, fill);
        *ret_entries = ENTRIES;
        return tables[d];
}
