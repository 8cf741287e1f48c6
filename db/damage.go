package db

import "fmt"

func damagedPage(pgno uint32) error {
	return fmt.Errorf("%w: page %d of the main file is not what was written", ErrDamaged, pgno)
}

// damage returns ErrDamaged if a page of the main file was found damaged. SQLite alone can't be
// relied on to say so, since some of its modules turn any failed read into an error of their own that
// looks like a result. The caller does not hold mu.
func (d *DB) damage() error {
	s := d.sums.Load()
	if s.damaged() == 0 {
		return nil
	}
	first, err := d.settleDamage(s)
	if first {
		d.cfg.Damaged(err)
	}
	return err
}

// settleDamage gives the main file up, so that the next start does not meet the page again. It says whether
// the caller is the first.
func (d *DB) settleDamage(s *sums) (first bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sums.Load() != s {
		return false, nil // that file is not the main file any more
	}
	err = damagedPage(s.damaged())
	if d.damaged {
		return false, err
	}
	d.damaged = true
	return true, d.giveUp(err)
}

// giveUp withdraws the marker, durably, so that the next start restores a snapshot; then err is final. The
// caller holds mu.
func (d *DB) giveUp(err error) error {
	d.track.marked = false
	if failed := withdrawMarker(d.fs, d.path); failed != nil {
		err = fmt.Errorf("%w; the marker remains: %w", err, failed)
	}
	return d.fail(err)
}
