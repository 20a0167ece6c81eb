"""The model that curate.filter asks where it is given no other: fitted to Backlot films alone, by

    telecine run backlot.shoot --set num_clips=600 --set seed=7000 --set subject=camera --set defect_ratio=0.7 \\
        --set num_frames=48
    telecine run curate.split --set videos_uri=VIDEOS
    telecine run curate.learn --set clips_uri=CLIPS --set truth_uri=VIDEOS

with the outputs of the first two in place of VIDEOS and CLIPS; what the third wrote as its model is the text below. It
lies in a module because a component's digest is one of modules, so that another model makes clips be filtered anew.
"""

MODEL = """{
 "best": 4.607372,
 "format": "telecine suitability 1",
 "metrics": {
  "error": 0.715707,
  "num_clips": 640,
  "num_sources": 600,
  "spearman": 0.812957
 },
 "penalties": [
  {
   "knee": 0.01,
   "measure": "motion",
   "ruin": 0.0,
   "strength": 0.420989
  },
  {
   "knee": 0.194509,
   "measure": "motion",
   "ruin": 2.0,
   "strength": 0.692614
  },
  {
   "knee": 0.655199,
   "measure": "stability",
   "ruin": 0.0,
   "strength": 0.414048
  },
  {
   "knee": 0.0,
   "measure": "freeze",
   "ruin": 1.0,
   "strength": 0.523669
  },
  {
   "knee": 0.007555,
   "measure": "flicker",
   "ruin": 0.2,
   "strength": 0.699127
  },
  {
   "knee": 0.354496,
   "measure": "blur",
   "ruin": 0.9,
   "strength": 0.8613
  },
  {
   "knee": 0.005208,
   "measure": "noise",
   "ruin": 0.15,
   "strength": 0.886777
  },
  {
   "knee": 0.173793,
   "measure": "blockiness",
   "ruin": 1.0,
   "strength": 1.111044
  },
  {
   "knee": 0.418608,
   "measure": "exposure",
   "ruin": 0.0,
   "strength": 0.904015
  },
  {
   "knee": 0.652135,
   "measure": "exposure",
   "ruin": 0.8,
   "strength": 0.885798
  },
  {
   "knee": 0.467818,
   "measure": "contrast",
   "ruin": 0.0,
   "strength": 0.726518
  },
  {
   "knee": 0.0,
   "measure": "clipping",
   "ruin": 0.5,
   "strength": 0.680561
  },
  {
   "knee": 0.0,
   "measure": "black_bars",
   "ruin": 0.5,
   "strength": 0.696527
  },
  {
   "knee": 0.046,
   "measure": "overlay_text",
   "ruin": 0.15,
   "strength": 0.629993
  },
  {
   "knee": 0.567659,
   "measure": "logo",
   "ruin": 1.0,
   "strength": 0.314927
  }
 ],
 "truth": "planted",
 "worst": 1.0
}
"""
