# gallery.gp — draws the frames of contours.gif and saddle.gif.
#
# Run by the gallery in a folder with gallery-data.gp (names, ranges and steps, written
# from the program's tables), SURFACE.grid (x y f and a shade) and SURFACE-PRESET.dat
# (step x y f). Makes contours-NNN.png and saddle-NNN.png.
#
# A panel is a family, so that twenty trails can be told apart. Within it a trail has a
# colour (Okabe and Ito's, for all kinds of colour vision), a width, dashes, and a marker
# at its head. The first is the widest and the last the narrowest: of trails that
# coincide, one is seen inside the other.

load 'gallery-data.gp'

array colour[4] = ["#0072B2", "#E69F00", "#D55E00", "#000000"]
array width[4] = [4.8, 3.2, 2.0, 1.3]
array marker[4] = [7, 5, 9, 13]
array size[4] = [1.5, 1.2, 1.35, 1.3]
array pattern[4] = [1, 1, 1, 2]
ink = '#333333'

set palette defined (0 '#ffffff', 1 '#b9c6d3') maxcolors 10
set cbrange [-2:3]
set encoding utf8
unset colorbox
set border 0
set tics textcolor rgb ink nomirror scale 0 font ',9'
set dashtype 2 (6, 4)

# The step that a frame shows: slowly at first, when most happens, but never the same.
paced(frame, steps) = int(steps * (1.0 * frame / frames) ** 1.8 + 0.5)
step_at(frame, steps) = paced(frame, steps) > frame ? paced(frame, steps) : frame

file(surface, i, m) = surface . '-' . word(members[i], m) . '.dat'

# Where panel i is, in parts of the screen: three beside each other.
left_of(i) = ((i - 1) % 3) / 3.0 + 0.030
right_of(i) = ((i - 1) % 3 + 1) / 3.0 - 0.006
row_of(i) = (i - 1) / 3

# ---------------------------------------------------------------- contours.gif

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

set terminal pngcairo size 1140, 1290 font 'sans,11' background '#ffffff'
height = 1290.0

do for [frame = 0:frames] {
    set output sprintf('contours-%03d.png', frame)
    set multiplot
    do for [s = 1:2] {
        surface = word("beale valley", s)
        shown = step_at(frame, value(surface . '_steps'))
        top = 1 - (s - 1) * 0.5
        set label 1 sprintf("{/:Bold=15 %s}   %s", value(surface . '_title'), \
            value(surface . '_formula')) at screen 0.03, screen top - 20 / height \
            textcolor rgb ink
        set label 2 sprintf("step %d of %d", shown, value(surface . '_steps')) \
            at screen 0.992, screen top - 20 / height right textcolor rgb ink
        set xrange [value(surface . '_x0'):value(surface . '_x1')]
        # In the corner, or between the branches, where no trail goes.
        if (s == 1) { set key bottom right } else { set key top center }
        set yrange [value(surface . '_y0'):value(surface . '_y1')]
        do for [i = 1:families] {
            set lmargin at screen left_of(i)
            set rmargin at screen right_of(i)
            set tmargin at screen top - (64 + 306 * row_of(i)) / height
            set bmargin at screen top - (64 + 306 * row_of(i) + 250) / height
            set title family[i] offset 0, -0.6 textcolor rgb ink font ',11'
            count = words(members[i])
            set key Left reverse opaque fillcolor rgb '#ffffff' samplen 2 spacing 1.05 font ',10' textcolor rgb ink \
                box linecolor rgb '#c8d0d8' height 0.4 width 1.5
            plot surface . '.grid' using 1:2:4 with image notitle, \
                surface . '.levels' using 1:2 with lines linecolor rgb '#8fa1b3' \
                    linewidth 0.6 notitle, \
                '+' using (value(surface . '_minimum_x')):(value(surface . '_minimum_y')) \
                    every ::0::0 with points pointtype 3 pointsize 2.2 linewidth 2 \
                    linecolor rgb '#ffffff' notitle, \
                '+' using (value(surface . '_minimum_x')):(value(surface . '_minimum_y')) \
                    every ::0::0 with points pointtype 3 pointsize 1.7 linewidth 1 \
                    linecolor rgb ink notitle, \
                for [m = 1:count] file(surface, i, m) using 2:3 every ::0::shown \
                    with lines linecolor rgb colour[m] linewidth width[m] \
                    dashtype pattern[m] notitle, \
                for [m = 1:count] file(surface, i, m) using 2:3 every ::shown::shown \
                    with points pointtype marker[m] pointsize size[m] + 0.5 \
                    linecolor rgb '#ffffff' notitle, \
                for [m = 1:count] file(surface, i, m) using 2:3 every ::shown::shown \
                    with points pointtype marker[m] pointsize size[m] \
                    linecolor rgb colour[m] notitle, \
                for [m = 1:count] keyentry with linespoints linecolor rgb colour[m] \
                    linewidth width[m] dashtype pattern[m] pointtype marker[m] \
                    pointsize size[m] title word(members[i], m) . '  '
            unset label 1
            unset label 2
        }
    }
    unset multiplot
}

# ---------------------------------------------------------------- saddle.gif

set terminal pngcairo size 1140, 760 font 'sans,11' background '#ffffff'
height = 760.0
unset tics
unset title
set view 42, 138, 0.8, 1.15

set pm3d depthorder border linecolor rgb '#c3ced9' linewidth 0.4
set palette defined (0 '#f4f7fa', 1 '#b4c2d0') maxcolors 12
set autoscale cb
set xrange [saddle_x0:saddle_x1]
set yrange [saddle_y0:saddle_y1]
set zrange [-1.2:3]

do for [frame = 0:frames] {
    shown = step_at(frame, saddle_steps)
    set output sprintf('saddle-%03d.png', frame)
    set multiplot
    set label 1 sprintf("{/:Bold=15 %s}   %s", saddle_title, saddle_formula) \
        at screen 0.03, screen 1 - 22 / height textcolor rgb ink
    set label 2 sprintf("step %d of %d", shown, saddle_steps) \
        at screen 0.992, screen 1 - 22 / height right textcolor rgb ink
    do for [i = 1:families] {
        set lmargin at screen left_of(i) + 0.036
        set rmargin at screen right_of(i) - 0.036
        set tmargin at screen 1 - (56 + 350 * row_of(i)) / height
        set bmargin at screen 1 - (56 + 350 * row_of(i) + 330) / height
        set key bottom left at screen left_of(i) - 0.024, \
            screen 1 - (378 + 350 * row_of(i) - 19 * words(members[i])) / height
        set label 3 family[i] at screen left_of(i), screen 1 - (64 + 350 * row_of(i)) / height textcolor rgb ink
        count = words(members[i])
        splot 'saddle.grid' using 1:2:3 with pm3d notitle
        splot for [m = 1:count] file('saddle', i, m) using 2:3:4 every ::0::shown \
                    with lines linecolor rgb colour[m] linewidth width[m] \
                    dashtype pattern[m] notitle, \
                for [m = 1:count] file('saddle', i, m) using 2:3:4 every ::shown::shown \
                    with points pointtype marker[m] pointsize size[m] + 0.5 \
                    linecolor rgb '#ffffff' notitle, \
                for [m = 1:count] file('saddle', i, m) using 2:3:4 every ::shown::shown \
                    with points pointtype marker[m] pointsize size[m] \
                    linecolor rgb colour[m] notitle, \
                for [m = 1:count] keyentry with linespoints linecolor rgb colour[m] \
                    linewidth width[m] dashtype pattern[m] pointtype marker[m] \
                    pointsize size[m] title word(members[i], m) . '  '
        unset label 1
        unset label 2
    }
    unset multiplot
}
