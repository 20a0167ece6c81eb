"""The model that curate.filter asks where it is given no other: fitted to Backlot films alone, by

    telecine run backlot.shoot --set num_clips=600 --set seed=7000 --set subject=camera --set defect_ratio=0.7 \\
        --set num_frames=48
    telecine run curate.split --set videos_uri=VIDEOS
    telecine run curate.learn --set clips_uri=CLIPS --set truth_uri=VIDEOS

with the outputs of the first two in place of VIDEOS and CLIPS; what the third wrote as its model is the text below. It
lies in a module because a component's digest is one of modules, so that another model makes clips be filtered anew.
"""

MODEL = """{
 "best": 4.473591,
 "format": "telecine suitability 1",
 "metrics": {
  "error": 0.880243,
  "num_clips": 632,
  "num_sources": 600,
  "spearman": 0.723964
 },
 "penalties": [
  {
   "knee": 0.01066,
   "measure": "motion",
   "ruin": 0.0,
   "strength": 0.362706
  },
  {
   "knee": 0.18128,
   "measure": "motion",
   "ruin": 2.0,
   "strength": 0.653448
  },
  {
   "knee": 0.713372,
   "measure": "stability",
   "ruin": 0.0,
   "strength": 0.360217
  },
  {
   "knee": 0.0,
   "measure": "freeze",
   "ruin": 1.0,
   "strength": 0.57429
  },
  {
   "knee": 0.005682,
   "measure": "flicker",
   "ruin": 0.2,
   "strength": 0.650203
  },
  {
   "knee": 0.597034,
   "measure": "blur",
   "ruin": 0.8,
   "strength": 0.733895
  },
  {
   "knee": 0.004103,
   "measure": "noise",
   "ruin": 0.15,
   "strength": 0.819705
  },
  {
   "knee": 0.194477,
   "measure": "blockiness",
   "ruin": 0.8,
   "strength": 0.991882
  },
  {
   "knee": 0.251892,
   "measure": "exposure",
   "ruin": 0.0,
   "strength": 0.982994
  },
  {
   "knee": 0.661694,
   "measure": "exposure",
   "ruin": 1.0,
   "strength": 0.889664
  },
  {
   "knee": 0.171221,
   "measure": "contrast",
   "ruin": 0.0,
   "strength": 0.547941
  },
  {
   "knee": 2e-05,
   "measure": "clipping",
   "ruin": 0.5,
   "strength": 0.594718
  },
  {
   "knee": 0.0,
   "measure": "black_bars",
   "ruin": 0.5,
   "strength": 0.646128
  },
  {
   "knee": 0.044501,
   "measure": "overlay_text",
   "ruin": 0.15,
   "strength": 0.586267
  },
  {
   "knee": 0.567659,
   "measure": "logo",
   "ruin": 1.0,
   "strength": 0.297856
  }
 ],
 "truth": "planted",
 "worst": 1.0
}
"""
