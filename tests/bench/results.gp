# results.gp — draws the curves of the groups scale and connections as one picture.
#
#   gnuplot -e "data='DIR'; picture='FILE.svg'" results.gp
#
# DIR has SERIES.dat as bench_optimd --curves writes them: a block for each quantity, of
# which the first two are drawn, with the lowest and the highest ratio of the first. The
# first panel has a second series, of models that no cache holds. A series that was not
# measured leaves its panel empty.

set terminal svg size 1000,620 font 'sans,11' background '#ffffff'
set output picture
set multiplot layout 2,3 margins 0.05,0.98,0.08,0.94 spacing 0.06,0.15
set logscale x
set format x '%.0s%c'
set yrange [0:3]
set ytics 0.5
set grid ytics lc rgb '#dddddd'
set border 3 lc rgb '#888888'
set tics nomirror textcolor rgb '#333333'
set key top left samplen 2 reverse Left
set bars 0.5
set samples 2

array name[6] = ['model-size', 'tensors-of-256', '25-6-million-in', \
    'round-of-1-million', 'idle', 'update']
array other[6] = ['model-size-from-memory', '', '', '', '', '']
array colour[3] = ['#0072B2', '#D55E00', '#009E73']
array first[6] = ['time, 1 M = 1', 'time', 'time', 'time', 'p50', 'time']
array second[6] = ['processor time, 1 M = 1', 'processor time', 'processor time', \
    'processor time', 'p99', '']
array caption[6] = ['each parameter, by model size', 'each tensor of 256, by tensors', \
    'each of 25.6 M parameters, by tensors', 'each gradient, by workers', \
    'each push, by idle connections', 'each parameter of an update, by threads']

# A ratio that leaves the panel is drawn at its upper edge.
inside(y) = y > 3 ? 3 : y
there(file) = system('test -s "' . file . '" && echo 1') eq '1'

do for [i = 1:6] {
    file = data . '/' . name[i] . '.dat'
    more = data . '/' . other[i] . '.dat'
    set title caption[i]
    last = second[i] eq '' ? 0 : 1
    if (there(file)) {
        if (other[i] ne '' && there(more)) {
            plot for [block = 0:last] file index block using 1:(inside($2)) \
                     with linespoints lw 2 pt 7 ps 0.5 lc rgb colour[block + 1] \
                     title block == 0 ? first[i] : second[i], \
                 more index 0 using 1:(inside($2)) with linespoints lw 2 pt 5 ps 0.5 \
                     lc rgb colour[3] title 'time, 64 M = 1', \
                 file index 0 using 1:(inside($2)):(inside($3)):(inside($4)) \
                     with yerrorbars pt 7 ps 0.5 lc rgb colour[1] notitle, \
                 1 with lines lc rgb '#888888' notitle
        } else {
            plot for [block = 0:last] file index block using 1:(inside($2)) \
                     with linespoints lw 2 pt 7 ps 0.5 lc rgb colour[block + 1] \
                     title block == 0 ? first[i] : second[i], \
                 file index 0 using 1:(inside($2)):(inside($3)):(inside($4)) \
                     with yerrorbars pt 7 ps 0.5 lc rgb colour[1] notitle, \
                 1 with lines lc rgb '#888888' notitle
        }
    } else {
        plot 1 with lines lc rgb '#888888' title 'not measured'
    }
}
unset multiplot
