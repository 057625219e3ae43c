# gallery.gp — draws the frames of the gallery's pictures.
#
# Run by the gallery in a folder with gallery-data.gp (names, ranges and steps, written
# from the program's tables), SURFACE.grid (x y f and a shade) and SURFACE-PRESET.dat
# (step x y f). Makes SURFACE-FAMILY-NNN.png of each surface and family, and
# saddle-overview-NNN.png.
#
# A picture is a family, so that trails can be told apart; it is small, so that three
# fit beside each other on a desk and one on a telephone, where its letters are still
# large enough. Within it a trail has a colour (Okabe and Ito's, for all kinds of colour
# vision), a width, dashes, and a marker at its head. The first is the widest and the
# last the narrowest: of trails that coincide, one is seen inside the other. Names stand
# below, never on the surface; the asterisk is the minimum.

load 'gallery-data.gp'

array colour[7] = ["#0072B2", "#E69F00", "#D55E00", "#000000", "#009E73", "#CC79A7", "#56B4E9"]
array width[7] = [5, 3.4, 2.2, 1.5, 2.2, 2.2, 2.2]
array marker[7] = [7, 5, 9, 13, 11, 7, 5]
array size[7] = [1.6, 1.3, 1.5, 1.5, 1.5, 1.4, 1.3]
array pattern[7] = [1, 1, 1, 2, 1, 1, 1]
ink = '#333333'

set encoding utf8
unset colorbox
set border 0
set tics textcolor rgb ink nomirror scale 0
set dashtype 2 (6, 4)

# The step that a frame shows: slowly at first, when most happens, but never the same.
paced(frame, steps) = int(steps * (1.0 * frame / frames) ** 1.8 + 0.5)
step_at(frame, steps) = paced(frame, steps) > frame ? paced(frame, steps) : frame

# Above the picture its title and the step, below it the names: two columns of them.
heading = 'set label 1 title_ at screen 0.02, screen 1 - 16 / height_ textcolor rgb ink; ' . \
    'set label 2 sprintf("step %d of %d", shown, steps) at screen 0.98, ' . \
    'screen 1 - 16 / height_ right textcolor rgb ink'
legend = 'set key Left reverse samplen 2.4 spacing 1.1 width 2 textcolor rgb ink ' . \
    'vertical maxrows rows_ center top at screen 0.5, screen (below_ - 4) / height_'

# The trails of a list of names on a surface, up to a step, from these columns.
trail(m) = surface . '-' . word(names, m) . '.dat'

# ---------------------------------------------------------------- over contours

do for [surface in "beale valley"] {
    set table surface . '.levels'
    unset surface
    set contour base
    set cntrparam levels discrete 1e-2, 3.1623e-2, 1e-1, 3.1623e-1, 1, 3.1623, 10, 31.623, 100, 316.23
    splot surface . '.grid' using 1:2:3
    unset contour
    set surface
    unset table
}

set terminal pngcairo size 480, 440 font 'sans,12' background '#ffffff'
height_ = 440.0
rows_ = 2
below_ = 54
@legend
set palette defined (0 '#ffffff', 1 '#b9c6d3') maxcolors 10
set cbrange [-2:3]
set lmargin at screen 0.09
set rmargin at screen 0.985
set tmargin at screen 1 - 36 / height_
set bmargin at screen (below_ + 24) / height_

do for [surface in "beale valley"] {
    steps = value(surface . '_steps')
    set xrange [value(surface . '_x0'):value(surface . '_x1')]
    set yrange [value(surface . '_y0'):value(surface . '_y1')]
    do for [i = 1:families] {
        names = members[i]
        title_ = '{/:Bold ' . family[i] . '}'
        do for [frame = 0:frames] {
            shown = step_at(frame, steps)
            @heading
            set output sprintf('%s-%d-%03d.png', surface, i, frame)
            plot surface . '.grid' using 1:2:4 with image notitle, \
                surface . '.levels' using 1:2 with lines linecolor rgb '#8fa1b3' \
                    linewidth 0.6 notitle, \
                '+' using (value(surface . '_minimum_x')):(value(surface . '_minimum_y')) \
                    every ::0::0 with points pointtype 3 pointsize 3.2 linewidth 4 \
                    linecolor rgb '#ffffff' notitle, \
                '+' using (value(surface . '_minimum_x')):(value(surface . '_minimum_y')) \
                    every ::0::0 with points pointtype 3 pointsize 2.8 linewidth 1.8 \
                    linecolor rgb ink notitle, \
                for [m = 1:words(names)] trail(m) using 2:3 every ::0::shown \
                    with lines linecolor rgb colour[m] linewidth width[m] \
                    dashtype pattern[m] notitle, \
                for [m = 1:words(names)] trail(m) using 2:3 every ::shown::shown \
                    with points pointtype marker[m] pointsize size[m] + 0.5 \
                    linecolor rgb '#ffffff' notitle, \
                for [m = 1:words(names)] trail(m) using 2:3 every ::shown::shown \
                    with points pointtype marker[m] pointsize size[m] \
                    linecolor rgb colour[m] notitle, \
                for [m = 1:words(names)] keyentry with linespoints linecolor rgb colour[m] \
                    linewidth width[m] dashtype pattern[m] pointtype marker[m] \
                    pointsize size[m] title word(names, m)
        }
    }
}

# ---------------------------------------------------------------- over the saddle

unset tics
set view 54, 124, 1, 1.55
set pm3d depthorder border linecolor rgb '#c3ced9' linewidth 0.4
set palette defined (0 '#f4f7fa', 1 '#b4c2d0') maxcolors 12
set autoscale cb
surface = 'saddle'
steps = saddle_steps
set xrange [saddle_x0:saddle_x1]
set yrange [saddle_y0:saddle_y1]
set zrange [-1.2:2.6]
set xyplane at -1.2

do for [i = 0:families] {
    if (i == 0) {
        set terminal pngcairo size 640, 540 font 'sans,17' background '#ffffff'
        height_ = 540.0
        rows_ = 3
        below_ = 100
        names = overview_members
        title_ = sprintf('{/:Bold %s}  %s', saddle_title, saddle_formula)
        name = overview
    } else {
        set terminal pngcairo size 480, 440 font 'sans,12' background '#ffffff'
        height_ = 440.0
        rows_ = 2
        below_ = 54
        names = members[i]
        title_ = '{/:Bold ' . family[i] . '}'
        name = sprintf('saddle-%d', i)
    }
    @legend
    set lmargin at screen 0.15
    set rmargin at screen 0.85
    set tmargin at screen 1 - 60 / height_
    set bmargin at screen (below_ + 62) / height_
    do for [frame = 0:frames] {
        shown = step_at(frame, steps)
        @heading
        set output sprintf('%s-%03d.png', name, frame)
        set multiplot
        splot 'saddle.grid' using 1:2:3 with pm3d notitle
        unset label 1
        unset label 2
        splot '+' using (saddle_minimum_x):(saddle_minimum_y):(-1) every ::0::0 \
                    with points pointtype 3 pointsize 3.2 linewidth 4 \
                    linecolor rgb '#ffffff' notitle, \
                '+' using (saddle_minimum_x):(saddle_minimum_y):(-1) every ::0::0 \
                    with points pointtype 3 pointsize 2.8 linewidth 1.8 \
                    linecolor rgb ink notitle, \
                for [m = 1:words(names)] trail(m) using 2:3:4 every ::0::shown \
                    with lines linecolor rgb colour[m] linewidth i == 0 ? 3.2 : width[m] \
                    dashtype i == 0 ? 1 : pattern[m] notitle, \
                for [m = 1:words(names)] trail(m) using 2:3:4 every ::shown::shown \
                    with points pointtype marker[m] pointsize size[m] + 0.5 \
                    linecolor rgb '#ffffff' notitle, \
                for [m = 1:words(names)] trail(m) using 2:3:4 every ::shown::shown \
                    with points pointtype marker[m] pointsize size[m] \
                    linecolor rgb colour[m] notitle
        # In space gnuplot would leave rows out that are below the surface.
        plot [0:1] [0:1] NaN notitle, \
                for [m = 1:words(names)] keyentry with linespoints linecolor rgb colour[m] \
                    linewidth i == 0 ? 3.2 : width[m] dashtype i == 0 ? 1 : pattern[m] \
                    pointtype marker[m] pointsize size[m] title word(names, m)
        unset multiplot
    }
}
