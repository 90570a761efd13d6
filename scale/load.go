package scale

import (
	"math"
	"slices"
	"time"
)

// load is what a history says at one moment.
type load struct {
	now    float64 // median rate over ReactWithin: a spike shorter than half of it does not count
	last   float64 // rate of the newest bucket
	lost   float64 // mean lost rate over ReactWithin
	rising float64 // rate expected Lead from now by the trend over Window; 0: no trend known
	peak   float64 // highest rate, averaged over ReactWithin, of the last InAfter
	steady bool    // load was known, and whole, throughout InAfter, so peak counts
	age    time.Duration
	code   string // why nothing is known; empty: it is
}

// read takes from the history what a decision needs. Buckets that are invalid, missing or not over yet never
// count as zero.
func read(now time.Time, p Policy, h History) load {
	span := h.span()
	last := len(h) - 1
	for last >= 0 && (!h[last].Valid || h[last].At.Add(span).After(now)) {
		last--
	}
	if last < 0 {
		return load{code: CodeDataMissing}
	}
	end := h[last].At.Add(span)
	l := load{age: now.Sub(end)}
	if l.age > p.StaleAfter {
		l.code = CodeDataStale
		return l
	}
	h = h[:last+1]
	recent := h.within(end.Add(-p.ReactWithin))
	var known float64
	_, l.lost, known = recent.mean(span)
	if known < 0.5*p.ReactWithin.Seconds() {
		l.code = CodeDataGap
		return l
	}
	l.now, l.last = recent.median(), h[last].Rate
	if !p.NoForecast {
		// A step is no ramp: the line through the last fifth of the window must rise as well.
		recent := p.Window / 5
		l.rising = min(trend(h.within(end.Add(-p.Window)), end.Add(p.Lead), span, p.Window),
			trend(h.within(end.Add(-recent)), end.Add(p.Lead), span, recent))
	}
	l.peak, l.steady = h.peak(end, span, p)
	return l
}

// span is the length of a bucket: the least distance between two.
func (h History) span() time.Duration {
	span := time.Duration(0)
	for i := max(1, len(h)-64); i < len(h); i++ {
		if d := h[i].At.Sub(h[i-1].At); d > 0 && (span == 0 || d < span) {
			span = d
		}
	}
	if span == 0 {
		span = time.Second
	}
	return span
}

// within are the buckets that begin at from or later.
func (h History) within(from time.Time) History {
	i, _ := slices.BinarySearchFunc(h, from, func(s Sample, t time.Time) int { return s.At.Compare(t) })
	return h[i:]
}

// mean averages the valid buckets and says how many seconds of them there are.
func (h History) mean(span time.Duration) (rate, lost, known float64) {
	n := 0.0
	for i := range h {
		if h[i].Valid {
			rate, lost, n = rate+h[i].Rate, lost+h[i].Lost, n+1
		}
	}
	if n > 0 {
		rate, lost = rate/n, lost/n
	}
	return rate, lost, n * span.Seconds()
}

// median is that of the valid buckets, of which there is at least one; the higher of the middle two.
func (h History) median() float64 {
	rates := make([]float64, 0, len(h))
	for i := range h {
		if h[i].Valid {
			rates = append(rates, h[i].Rate)
		}
	}
	slices.Sort(rates)
	return rates[len(rates)/2]
}

// peak is the highest mean over ReactWithin that ended within the last InAfter; steady says that at least nine
// tenths of that time, its beginning included, are known. Of a lower bound nothing is known in this sense.
func (h History) peak(end time.Time, span time.Duration, p Policy) (peak float64, steady bool) {
	begin := end.Add(-p.InAfter)
	h = h.within(begin)
	if len(h) == 0 || h[0].At.Sub(begin) > max(span, p.InAfter/10) {
		return 0, false
	}
	width := max(1, int(p.ReactWithin/span))
	ring := make([]float64, 0, width)
	sum, known, seen := 0.0, 0, 0
	for i := range h {
		if !h[i].Valid {
			continue
		}
		if !h[i].AtLeast {
			known++
		}
		if len(ring) < width {
			ring = append(ring, h[i].Rate)
		} else {
			oldest := seen % width
			sum -= ring[oldest]
			ring[oldest] = h[i].Rate
		}
		seen++
		sum += h[i].Rate
		peak = max(peak, sum/float64(len(ring)))
	}
	return peak, float64(known)*span.Seconds() >= 0.9*p.InAfter.Seconds()
}

// trend extends the least-squares line through the buckets to the given moment. It is 0 unless nine tenths of
// the window are known, and at most doubles the mean: a line says nothing far off.
func trend(h History, to time.Time, span time.Duration, window time.Duration) float64 {
	var n, sx, sy, sxx, sxy, syy float64
	for i := range h {
		if h[i].Valid {
			x := h[i].At.Sub(to).Seconds()
			y := h[i].Rate
			n, sx, sy, sxx, sxy, syy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y, syy+y*y
		}
	}
	det := n*sxx - sx*sx
	if n < 3 || det <= 0 || n*span.Seconds() < 0.9*window.Seconds() {
		return 0
	}
	if cov := n*sxy - sx*sy; cov*cov < 0.5*det*(n*syy-sy*sy) {
		return 0 // less than half of the movement is a trend: the rest is noise
	}
	mean := sy / n
	at := (sxx*sy - sx*sxy) / det // of the line at x = 0
	return min(at, 2*mean)
}

// learn returns the share of capacity to aim at, so that load that grows within lead as it grew in the past,
// but for a share loss of the time, still fits. Without an hour of known past it returns 0.
func learn(h History, lead time.Duration, loss float64) float64 {
	const minimum, enough = time.Hour, 200
	span := h.span()
	if len(h) < enough || h[len(h)-1].At.Sub(h[0].At) < minimum {
		return 0
	}
	ahead := max(1, int(lead/span))
	stride := max(1, (len(h)-ahead)/1000)
	ratios := make([]float64, 0, 1001)
	for i := 3; i+ahead < len(h); i += stride {
		base, _, known := h[i-3 : i+1].mean(span)
		if known == 0 || base <= 0 {
			continue
		}
		top := 0.0
		for _, s := range h[i+1 : i+ahead+1] {
			if s.Valid {
				top = max(top, s.Rate)
			}
		}
		if top > 0 {
			ratios = append(ratios, top/base)
		}
	}
	if len(ratios) < enough/2 {
		return 0
	}
	slices.Sort(ratios)
	growth := ratios[min(len(ratios)-1, int(math.Ceil((1-loss)*float64(len(ratios)-1))))]
	return 1 / min(max(growth, 1.15), 1.67)
}
